"""What only the book needs: runs and their ledger, the papers' cards, the twins, the stage, the queue of full scale."""
