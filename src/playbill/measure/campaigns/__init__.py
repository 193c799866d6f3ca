"""What a campaign did: by the intention to treat, against whoever was held out."""
