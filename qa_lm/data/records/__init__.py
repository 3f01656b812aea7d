"""Records to pairs: which column is what, values as text, dialogues."""
