"""What a person sees: header, progress, tables and pictures."""
