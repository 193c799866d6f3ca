"""Every answered slate and page, logged so that it can be measured and answered again. See SLATES.md."""
