"""Networks of a bundle in float16 or int8, with what it costs measured on faces before it is allowed."""
