"""The JSON of answers about generations, in the words of each dialect; who gets which is decided elsewhere."""
