"""Opening, checking and sending the media of a clip."""
