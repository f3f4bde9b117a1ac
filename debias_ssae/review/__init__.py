"""What a classifier rests on and what a debiaser removes, on cards that a person judges."""

from debias_ssae.review.cards import Card, Judge, WhatIf, chat_judge, word_list_judge
from debias_ssae.review.discovery import Shortcuts, discover

__all__ = ["Card", "Judge", "Shortcuts", "WhatIf", "chat_judge", "discover", "word_list_judge"]
