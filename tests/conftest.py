"""Stands here so that every test can import the helpers in this folder."""
