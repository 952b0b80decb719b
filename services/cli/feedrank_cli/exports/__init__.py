"""`feedrank export` inside: a table as a stream of batches, and the file it becomes."""
