"""Pictures that people upload on a page, or programs send over the API, to have them inspected."""
