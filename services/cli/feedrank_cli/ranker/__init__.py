"""Ranking tasks whose best answer is known or public, and who contends in them."""
