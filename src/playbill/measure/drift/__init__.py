"""Has what comes in, what models say, or what people do changed between two windows by more than chance does?"""
