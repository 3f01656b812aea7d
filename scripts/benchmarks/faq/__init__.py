"""Frequently asked questions, asked as people ask; the files were written by hand before anything was trained on them.

NAME.jsonl has 42 answers in three phrasings each, NAME_paraphrases.jsonl 63 other questions for them: the first 32
share words with a trained question, the others hardly do. NAME_unrelated.txt has 16 questions of general knowledge,
then 16 of the same trade, that the file does not answer.
"""
