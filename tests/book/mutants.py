"""Plausible wrong answers to the graded tasks: for each, what is wrong, and the change that makes it from the solution.

A change is (old, new); old stands exactly once in the solution's cell.
"""

MUTANTS = {
    "nt-xent": {
        "no temperature": ("z @ z.T / tau", "z @ z.T"),
        "times the temperature": ("z @ z.T / tau", "z @ z.T * tau"),
        "not normalised": ("F.normalize(z, dim=1)", "z"),
        "normalised along the batch": ("F.normalize(z, dim=1)", "F.normalize(z, dim=0)"),
        "the row itself among the negatives": ("logits.masked_fill(itself, -torch.inf)", "logits"),
        "the row itself counts as exp(0)": ("-torch.inf", "0.0"),
        "neighbours as positives": ("roll(len(z) // 2)", "roll(1)"),
        "sum for mean": ("-torch.inf), other)", '-torch.inf), other, reduction="sum")'),
        "positives left out of the denominator": (
            "return F.cross_entropy(logits.masked_fill(itself, -torch.inf), other)",
            "p = logits[torch.arange(len(z)), other]\n"
            "    gone = itself | (torch.arange(len(z))[:, None] == other)\n"
            "    return (logits.masked_fill(gone, -torch.inf).logsumexp(1) - p).mean()",
        ),
        "exponentials that overflow": (
            "return F.cross_entropy(logits.masked_fill(itself, -torch.inf), other)",
            "e = logits.exp().masked_fill(itself, 0)\n"
            "    return -(e[torch.arange(len(z)), other] / e.sum(1)).log().mean()",
        ),
        "no gradient": ("z = F.normalize(z, dim=1)", "z = F.normalize(z, dim=1).detach()"),
    },
    "moco-update": {
        "weights the wrong way round": ("m * slow + (1 - m) * fast", "(1 - m) * slow + m * fast"),
        "a copy": ("m * slow + (1 - m) * fast", "fast"),
        "steps without a limit": ("m * slow + (1 - m) * fast", "slow + (1 - m) * fast"),
        "the query follows": ("slow.copy_(m * slow + (1 - m) * fast)", "fast.copy_(m * fast + (1 - m) * slow)"),
        "weights but not biases": ("zip(key.parameters(), query.parameters())", "[(key.weight, query.weight)]"),
        "no stop-gradient": ("k.detach()", "k"),
        "keys not normalised": ("torch.nn.functional.normalize(k.detach(), dim=1)", "k.detach()"),
        "new keys at the end": ("torch.cat([keys, queue])[: len(queue)]", "torch.cat([queue, keys])[-len(queue) :]"),
        "the oldest stay": ("torch.cat([keys, queue])[: len(queue)]", "torch.cat([keys, queue])[-len(queue) :]"),
        "a queue that grows": ("torch.cat([keys, queue])[: len(queue)]", "torch.cat([keys, queue])"),
    },
    "infonce-bound": {
        "wrong axis": ("logsumexp(1)", "logsumexp(0)"),
        "sum for mean": ("right.mean()", "right.sum()"),
        "no log n": ("math.log(len(scores)) + ", ""),
        "bits for nats": ("return math.log(len(scores)) + right.mean()",
                          "return (math.log(len(scores)) + right.mean()) / math.log(2)"),
        "a loss for an estimate": ("return math", "return -math"),
        "positives left out of the denominator": (
            "scores.logsumexp(1)", "scores.masked_fill(torch.eye(len(scores)).bool(), -torch.inf).logsumexp(1)"
        ),
        "exponentials that overflow": ("scores.logsumexp(1)", "scores.exp().sum(1).log()"),
        "a mean of all scores": ("scores.diagonal()", "scores"),
    },
    "uniformity": {
        "distance not squared in alignment": (".square().sum(1).mean()", ".norm(dim=1).mean()"),
        "mean over features": (".square().sum(1).mean()", ".square().mean()"),
        "alignment of raw rows": ("(F.normalize(z1, dim=1) - F.normalize(z2, dim=1))", "(z1 - z2)"),
        "distance not squared in uniformity": ("F.normalize(z, dim=1)).square()", "F.normalize(z, dim=1))"),
        "uniformity of raw rows": ("torch.pdist(F.normalize(z, dim=1))", "torch.pdist(z)"),
        "rows paired with themselves": (
            "torch.pdist(F.normalize(z, dim=1))", "torch.cdist(F.normalize(z, dim=1), F.normalize(z, dim=1))"
        ),
        "mean of logarithms": (".exp().mean().log()", ".mean()"),
        "sum for mean": (".exp().mean().log()", ".exp().sum().log()"),
        "t left out": ("(-t * apart)", "(-2 * apart)"),
        "sign": ("(-t * apart)", "(t * apart)"),
    },
    "barlow-twins": {
        "not centred": ("z - z.mean(0)", "z"),
        "wrong axis": ("F.normalize(z - z.mean(0), dim=0)", "F.normalize(z - z.mean(0), dim=1)"),
        "covariance for correlation": ("F.normalize(z - z.mean(0), dim=0)", "(z - z.mean(0)) / len(z) ** 0.5"),
        "samples for features": ("z1.T @ z2", "z1 @ z2.T"),
        "one view twice": ("z1.T @ z2", "z1.T @ z1"),
        "diagonal in the redundancy term": (" - c.diagonal().square().sum()", ""),
        "mean for sum": ("return on + lam * off", "return (on + lam * off) / len(c)"),
        "weight on the wrong term": ("on + lam * off", "lam * on + off"),
        "no square": ("(1 - c.diagonal()).square().sum()", "(1 - c.diagonal()).sum()"),
        "correlations that cancel": ("c.square().sum() - c.diagonal().square().sum()", "c.sum() - c.diagonal().sum()"),
        "stop-gradient as in BYOL": ("z1.T @ z2", "z1.T @ z2.detach()"),
    },
    "rankme": {
        "eigenvalues for singular values": ("torch.linalg.svdvals(z)", "torch.linalg.svdvals(z).square()"),
        "centred": ("torch.linalg.svdvals(z)", "torch.linalg.svdvals(z - z.mean(0))"),
        "entropy for its exponential": ("torch.exp(-(p * p.log()).sum())", "-(p * p.log()).sum()"),
        "bits under exp": ("p.log()", "p.log2()"),
        "shares of the largest": ("values.sum()", "values.max()"),
        "no epsilon": (" + eps", ""),
        "the rank of linear algebra": ("torch.exp(-(p * p.log()).sum())", "(p > 1e-4).sum()"),
    },
    "cluster-loss": {
        "no temperature": ("z @ z.T / tau", "z @ z.T"),
        "not normalised": ("F.normalize(z, dim=1)", "z"),
        "the row itself a candidate": ("logits.masked_fill(itself, -torch.inf)", "logits"),
        "the row itself a partner": (" & ~itself", ""),
        "sum over partners for mean": (" / partner.sum(1)[paired]", ""),
        "rows without partner counted": ("return each.mean()", "return each.sum() / len(z)"),
        "rows without partner no candidates": (
            "itself = torch.eye(len(z), dtype=torch.bool)",
            "itself = torch.eye(len(z), dtype=torch.bool)\n"
            "    itself = itself | ((source[:, None] == source).sum(0) == 1)",
        ),
        "mean over pairs": (
            "-(log_p * partner).sum(1)[paired] / partner.sum(1)[paired]", "-log_p[partner]"
        ),
        "logarithm outside the sum": (
            "each = -(log_p * partner).sum(1)[paired] / partner.sum(1)[paired]",
            "each = -((log_p.exp() * partner).sum(1)[paired] / partner.sum(1)[paired]).log()",
        ),
        "partners left out of the denominator": (
            "logits.masked_fill(itself, -torch.inf)",
            "logits.masked_fill((source[:, None] == source), -torch.inf)",
        ),
    },
    "aggregate": {
        "sum for mean": (".mean(0)", ".sum(0)"),
        "all turns asked of all copies": ("table[v, :, :, v]", "table[v].mean(-1)"),
        "the untouched copy alone": (".mean(0)", "[0]"),
        "columns turn by turn": (
            "scores.view(copies, n, -1, copies)", "scores.view(copies, n, copies, -1).transpose(2, 3)"
        ),
        "rows image by image": (
            "scores.view(copies, n, -1, copies)", "scores.view(n, copies, -1, copies).transpose(0, 1)"
        ),
        "probabilities for scores": ("table = scores.view", "table = scores.softmax(1).view"),
    },
    "next-patch": {
        "no shift": ("predicted[:, :-1]", "predicted[:, 1:]"),
        "shift the wrong way": ("predicted[:, :-1] - target[:, 1:]", "predicted[:, 1:] - target[:, :-1]"),
        "raw pixels": ("(patches - patches.mean(2, keepdim=True)) / patches.std(2, keepdim=True)", "patches"),
        "normalised over the image": (
            "(patches - patches.mean(2, keepdim=True)) / patches.std(2, keepdim=True)",
            "(patches - patches.mean((1, 2), keepdim=True)) / patches.std((1, 2), keepdim=True)",
        ),
        "biased standard deviation": ("patches.std(2, keepdim=True)", "patches.std(2, keepdim=True, correction=0)"),
        "the prefix among the targets": ("return error[counts].mean()", "return error.mean()"),
        "a prefix longer by one": (">= prefix", "> prefix"),
        "every image alike": (
            "return error[counts].mean()", "return ((error * counts).sum(1) / counts.sum(1)).mean()"
        ),
        "sum over values": (".square().mean(2)", ".square().sum(2)"),
        "absolute error": (".square().mean(2)", ".abs().mean(2)"),
    },
    "prefix-mask": {
        "a token does not see itself": ("place <= place[:, None]", "place < place[:, None]"),
        "transposed": ("place <= place[:, None]", "place >= place[:, None]"),
        "prefix longer by one": ("place < prefix", "place <= prefix"),
        "plain causal mask": (
            "causal | (place < prefix[:, None, None])", "causal.expand(len(prefix), k, k)"
        ),
        "and for or": ("causal | ", "causal & "),
        "the longest prefix for all": ("prefix[:, None, None]", "prefix.max().expand(len(prefix), 1, 1)"),
        "hidden for seen": ("return causal | (place < prefix[:, None, None])",
                            "return ~(causal | (place < prefix[:, None, None]))"),
    },
    "knn-kl": {
        "each target its own neighbour": (".masked_fill(itself, torch.inf).amin(1)", ".amin(1).clamp_min(1e-12)"),
        "dimension left out": ("return d * ", "return "),
        "sum for mean": (".log().mean()", ".log().sum()"),
        "n for n - 1": ("(n - 1)", "n"),
        "ratio upside down": ("nu / rho", "rho / nu"),
        "correction left out": (" + math.log(len(chosen) / (n - 1))", ""),
        "mean distance for nearest": ("torch.cdist(target, chosen).amin(1)", "torch.cdist(target, chosen).mean(1)"),
        "wrong axis": ("torch.cdist(target, chosen).amin(1)", "torch.cdist(target, chosen).amin(0).mean()"),
        "logarithm of the mean": ("(nu / rho).log().mean()", "(nu / rho).mean().log()"),
    },
    "graph-cut": {
        "a ranking": ("gain = gain - 2 * similarity[chosen[-1]]", "pass"),
        "subtracted once": ("gain - 2 * similarity", "gain - similarity"),
        "likeness to itself counted": (" - similarity.diagonal()", ""),
        "chosen twice": ("free[chosen] = -torch.inf", "pass"),
        "the least similar": ("free.argmax()", "(-free.nan_to_num(neginf=1e9)).argmax()"),
        "changed in place": ("gain = similarity.sum(0)", "similarity.fill_diagonal_(0)\n    gain = similarity.sum(0)"),
        "too few": ("range(count)", "range(count - 1)"),
    },
    "half-splits": {
        "biased over runs": ("y.mean(1).var()", "y.mean(1).var(correction=0)"),
        "coins biased over runs": ("y.var(0)", "y.var(0, correction=0)"),
        "the variance on the test set": (" - coins", ""),
        "the binomial formula for coins": ("y.var(0).sum() / n**2", "y.mean() * (1 - y.mean()) / n"),
        "mean for sum": ("y.var(0).sum() / n**2", "y.var(0).mean()"),
        "n for its square": ("n**2", "n"),
        "pairs of an image with itself": ("n / (n - 1) * ", ""),
        "one halving": (
            "return n / (n - 1) * (y.mean(1).var() - coins)",
            "a, b = y[:, : n // 2].mean(1), y[:, n // 2 :].mean(1)\n"
            "    return torch.cov(torch.stack([a, b]))[0, 1]",
        ),
        "never negative": ("(y.mean(1).var() - coins)", "(y.mean(1).var() - coins).clamp(min=0)"),
        "images for runs": ("y = correct.double()", "y = correct.double().T"),
        "a standard deviation": ("y.mean(1).var() - coins", "y.mean(1).std() - coins ** 0.5"),
    },
    "threshold": {
        "the number of right ones": ("int((before + after).argmin())", "int(right.sum())"),
        "the first wrong one": ("int((before + after).argmin())", "int((~right).int().argmax())"),
        "the last of several": (
            "int((before + after).argmin())", "len(right) - int((before + after).flip(0).argmin())"
        ),
        "only mistakes before": ("before + after", "before"),
        "only mistakes after": ("before + after", "after"),
        "never all": ("(before + after).argmin()", "(before + after)[:-1].argmin()"),
        "never none": ("(before + after).argmin()", "(before + after)[1:].argmin() + 1"),
        "one too few": ("(before + after).argmin()", "(before + after)[1:].argmin()"),
        "the hardest first": ("zero = torch", "right = right.flip(0)\n    zero = torch"),
        "the most mistakes": ("argmin", "argmax"),
        "right and wrong exchanged": ("zero = torch", "right = ~right\n    zero = torch"),
    },
}
