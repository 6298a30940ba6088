"""Speed of packed layers beside torch and other sparse libraries."""
