"""Audience -> messages: what each recipient is sent, when and whether at all."""
