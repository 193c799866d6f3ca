"""Which of two rankers do people prefer, shown both in one list: `playbill measure question=interleaving`."""
