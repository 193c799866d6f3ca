"""Request -> slate: profile, retrieve, rank, compose, explain. Knows no web server, no Ray and no torch."""
