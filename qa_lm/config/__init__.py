"""The settings: their schema, how they are composed, checked and explained."""
