"""Pictures that people or programs send to be judged, by page and by API."""
