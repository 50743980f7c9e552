"""HTTP as data: what a request holds and is about (``calls``), and what an answer holds (``answers``)."""
