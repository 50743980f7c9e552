"""What exists in one sandbox: generations, files, the account's books and slots, the time."""
