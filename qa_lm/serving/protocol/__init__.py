"""Requests and answers in the shapes of the OpenAI API."""
