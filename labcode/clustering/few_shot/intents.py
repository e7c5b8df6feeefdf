"""Short requests with intents, from a grammar of templates and synonyms, and ways to paraphrase them."""

import math
import random
from dataclasses import dataclass, replace

ACTIONS = {
    "book": ["book", "reserve", "arrange", "get", "secure"],
    "cancel": ["cancel", "call off", "drop", "scrap", "undo"],
    "change": ["change", "move", "modify", "reschedule", "adjust"],
    "find": ["find", "locate", "look for", "search for", "track"],
    "pay": ["pay for", "settle", "clear", "cover", "buy"],
    "report": ["report", "flag", "complain about", "notify you of", "mention"],
    "extend": ["extend", "prolong", "renew", "lengthen", "continue"],
    "share": ["share", "send", "forward", "pass on", "transfer"],
}
OBJECTS = {
    "flight": ["flight", "plane ticket", "air travel", "trip by air", "plane"],
    "table": ["table", "restaurant seat", "dinner place", "spot for dinner", "restaurant"],
    "room": ["room", "hotel", "suite", "lodging", "place to sleep"],
    "card": ["card", "credit card", "visa", "debit card", "plastic"],
    "parcel": ["parcel", "package", "delivery", "shipment", "box"],
    "meeting": ["meeting", "appointment", "call", "conference", "sync"],
    "invoice": ["invoice", "bill", "statement", "charge", "receipt"],
    "song": ["song", "track", "tune", "playlist", "music"],
    "contract": ["contract", "subscription", "plan", "membership", "agreement"],
    "password": ["password", "login", "pin", "code", "secret"],
    "car": ["car", "rental", "vehicle", "van", "auto"],
    "course": ["course", "class", "lesson", "lecture", "training"],
}
TEMPLATES = [
    "can you {v} {d} {o} {t}", "i want to {v} {d} {o} {t}", "please {v} {d} {o} {t}", "how do i {v} {d} {o}",
    "is it possible to {v} {d} {o} {t}", "{v} {d} {o} {t} please", "help me {v} {d} {o}",
    "hello i would like to {v} {d} {o} {t}",
    "i need somebody to {v} {d} {o}", "what must i do to {v} {d} {o} {t}", "kindly {v} {d} {o}",
    "would you {v} {d} {o} for me {t}",
]  # fmt: skip
DETERMINERS = ["the", "my", "this", "our", "a"]
TIMES = ["", "", "today", "tomorrow", "next week", "on monday", "in the morning", "as soon as possible",
         "before the weekend", "for two people", "in london", "with my wife", "for the boss",
         "from my account"]  # fmt: skip


@dataclass(frozen=True)
class Sentence:
    """A request: what it is about, and the words chosen for it."""

    action: str
    object: str
    template: str
    verb: str
    noun: str
    determiner: str
    time: str

    def __str__(self) -> str:
        said = self.template.format(v=self.verb, o=self.noun, d=self.determiner, t=self.time)
        return " ".join(said.split())


def intents(seed: int, sizes: tuple[int, int] = (24, 24)) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs of action and object for training and for testing. Objects of the two parts are different ones: a test
    request is about a thing that no labelled sentence names.

    Raises ValueError for more pairs than there are.
    """
    g = random.Random(seed)
    things = sorted(OBJECTS)
    g.shuffle(things)
    parts = []
    for size, objects in zip(sizes, (things[: len(things) // 2], things[len(things) // 2 :]), strict=True):
        pairs = [(a, o) for a in sorted(ACTIONS) for o in objects]
        if not 1 <= size <= len(pairs):
            raise ValueError(f"sizes must be between 1 and {len(pairs)}, got {size}")
        parts.append(g.sample(pairs, size))
    return parts[0], parts[1]


def request(intent: tuple[str, str], g: random.Random) -> Sentence:
    """A random request of an intent."""
    action, thing = intent
    return Sentence(action, thing, g.choice(TEMPLATES), g.choice(ACTIONS[action]), g.choice(OBJECTS[thing]),
                    g.choice(DETERMINERS), g.choice(TIMES))  # fmt: skip


def paraphrase(
    s: Sentence, g: random.Random, forbidden: float = 0.5, bigrams: bool = False, drift: float = 0.1
) -> Sentence:
    """A rewording as a seq2seq model with blocked words would give: structure anew, words of the source kept or not.

    forbidden  the probability that a content word of the source, verb or noun, may not be used again; 0 is plain
               decoding, which mostly repeats the source
    bigrams    no two neighbouring words of the source may be repeated: template and determiner change for certain, and
               either verb or noun must
    drift      the probability that a forced word comes from another meaning: what a paraphraser gets wrong
    """
    hit = [g.random() < forbidden, g.random() < forbidden]
    if bigrams and not any(hit):
        hit[g.randrange(2)] = True
    loose = bigrams or g.random() < 0.3 + 0.6 * forbidden
    template = g.choice([t for t in TEMPLATES if t != s.template]) if loose else s.template
    determiner = g.choice([d for d in DETERMINERS if d != s.determiner]) if loose else s.determiner
    made = replace(s, template=template, determiner=determiner, time=g.choice(TIMES) if g.random() < 0.5 else s.time)
    for blocked, name, table, key in ((hit[0], "verb", ACTIONS, s.action), (hit[1], "noun", OBJECTS, s.object)):
        if blocked:
            source = table[g.choice(sorted(table))] if g.random() < drift else table[key]
            made = replace(made, **{name: g.choice([w for w in source if w != getattr(s, name)])})
        elif g.random() < 0.1:
            made = replace(made, **{name: g.choice(table[key])})
    return made


def eda(s: Sentence, g: random.Random, rate: float = 0.1) -> str:
    """Easy data augmentation (Wei and Zou, 2019): synonyms, insertion, swap and deletion, each at a share of the words.

    A synonym is known for whole verbs and nouns only; there is no thesaurus of the rest.
    """
    table = {w: [x for x in words if x != w] for group in (ACTIONS, OBJECTS) for words in group.values() for w in words}
    verb, noun = (g.choice(table[w]) if g.random() < rate else w for w in (s.verb, s.noun))
    words = str(replace(s, verb=verb, noun=noun)).split()
    for _ in range(max(1, int(rate * len(words)))):
        words.insert(g.randrange(len(words) + 1), g.choice(words))
        i, j = g.randrange(len(words)), g.randrange(len(words))
        words[i], words[j] = words[j], words[i]
    kept = [w for w in words if g.random() > rate]
    return " ".join(kept or words[:1])


def bleu(candidate: str, reference: str, order: int = 2) -> float:
    """BLEU of a sentence against one other: clipped precisions up to pairs of words, their geometric mean, brevity."""
    c, r = candidate.split(), reference.split()
    total = 1.0
    for n in range(1, order + 1):
        mine = [tuple(c[i : i + n]) for i in range(len(c) - n + 1)]
        theirs = [tuple(r[i : i + n]) for i in range(len(r) - n + 1)]
        hits = sum(min(mine.count(w), theirs.count(w)) for w in set(mine))
        total *= hits / max(1, len(mine))
    return total ** (1 / order) * math.exp(min(0.0, 1 - len(r) / max(1, len(c))))
