"""The image codec, one room a file; `codec` is the hall where they meet."""
