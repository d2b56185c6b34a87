"""The record of decisions: durable before anything is set off, chained so that changes show, and replayed."""
