"""The state of one sandbox: generations, files, the account's ledger and slots, the time."""
