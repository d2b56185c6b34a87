"""The default recogniser, distilled: a student learns to give the embeddings that a teacher gives, of endless faces."""
