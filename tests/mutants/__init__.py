"""Small changes of the source code, called mutants. A test must fail for each mutant."""
