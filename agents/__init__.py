"""Who acts: the inspector and the sorter. Thin: receive, call a pure function, send, acknowledge."""
