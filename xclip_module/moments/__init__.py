"""Score curves to ranked moments."""
