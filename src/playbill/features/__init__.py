"""How a person looks: spec, vocabularies, the fold (events -> profile) and the encoder (profile -> arrays)."""
