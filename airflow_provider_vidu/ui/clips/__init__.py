"""What a clip page shows: facts, pieces, views and live states."""
