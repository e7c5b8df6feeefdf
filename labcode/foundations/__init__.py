"""Part: foundations of learning and of judging what was learnt."""
