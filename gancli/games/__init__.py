"""Games: who plays, what each loses and whose move it is."""
