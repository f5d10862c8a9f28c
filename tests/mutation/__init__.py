"""Mutation testing: are the rules tested so well that no small change of them goes unnoticed?"""
