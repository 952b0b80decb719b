"""What a feature is: definitions and encodings, pure numpy, the same in training and serving."""
