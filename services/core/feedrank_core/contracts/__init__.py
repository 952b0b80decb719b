"""Everything that leaves a process: messages, topics, Redis keys, bundles, HTTP bodies, metrics.

Imports nothing of ours and no I/O library, so that any service, pipeline or notebook can.
"""
