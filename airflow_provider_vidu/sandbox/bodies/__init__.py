"""The JSON of answers about generations in each dialect."""
