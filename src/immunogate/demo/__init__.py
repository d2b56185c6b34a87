"""The walk-up that the demo shows: a scene made of two public-domain portraits, four acts, two gates, a picture."""
