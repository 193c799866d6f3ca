"""`playbill campaign run`: rows and decisions of one campaign, made by Ray Data in shards."""
