"""The features of the stream: a state that every event is folded into once, and what shows it."""
