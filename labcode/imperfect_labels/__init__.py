"""The part Imperfect labels: a package a chapter, and what several of them share."""
