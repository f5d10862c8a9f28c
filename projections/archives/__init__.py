"""Files that leave the ledger and come back: archives, tables, publications, backups."""
