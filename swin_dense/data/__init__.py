"""Data sets: the built-in one, and where things lie in a COCO or ADE20K folder."""
