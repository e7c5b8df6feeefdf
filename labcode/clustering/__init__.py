"""The part Clustering and discovery: a package a chapter, and what several of them share."""
