"""Answers to the graded tasks: plausible wrong ones (MUTANTS), and right ones that are written otherwise (VARIANTS).

Of each, what is wrong or different, and the change that makes it from the solution. A change is (old, new); old stands
exactly once in the solution's cell.
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
        "gradient as a query alone": ("z @ z.T / tau", "z @ z.detach().T / tau"),
        "gradient as a candidate alone": ("z @ z.T / tau", "z.detach() @ z.T / tau"),
        "exponentials less the largest possible": (
            "return F.cross_entropy(logits.masked_fill(itself, -torch.inf), other)",
            "e = (logits - 1 / tau).exp().masked_fill(itself, 0)\n"
            "    return -(e[torch.arange(len(z)), other] / e.sum(1)).log().mean()",
        ),
        "exponentials less one maximum": (
            "return F.cross_entropy(logits.masked_fill(itself, -torch.inf), other)",
            "e = (logits - logits.max()).exp().masked_fill(itself, 0)\n"
            "    return -(e[torch.arange(len(z)), other] / e.sum(1)).log().mean()",
        ),
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
        "new parameters for old": (
            "for slow, fast in zip(key.parameters(), query.parameters()):\n"
            "            slow.copy_(m * slow + (1 - m) * fast)",
            "for name, fast in query.named_parameters():\n"
            "            setattr(key, name, torch.nn.Parameter(m * getattr(key, name) + (1 - m) * fast))",
        ),
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
        "exponentials less one maximum": (
            "right = scores.diagonal() - scores.logsumexp(1)",
            "e = (scores - scores.max()).exp()\n    right = (e.diagonal() / e.sum(1)).log()",
        ),
        "a ratio that vanishes": (
            "right = scores.diagonal() - scores.logsumexp(1)", "right = scores.softmax(1).diagonal().log()"
        ),
        "a sum that vanishes": (
            "scores.logsumexp(1)", "(scores.max() + (scores - scores.max()).exp().sum(1).log())"
        ),
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
        "mean and scale without gradient": (
            "F.normalize(z - z.mean(0), dim=0)",
            "(z - z.mean(0).detach()) / (z - z.mean(0)).norm(dim=0).detach()",
        ),
        "scale without gradient": (
            "F.normalize(z - z.mean(0), dim=0)", "(z - z.mean(0)) / (z - z.mean(0)).norm(dim=0).detach()"
        ),
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
        "gradient as a query alone": ("z @ z.T / tau", "z @ z.detach().T / tau"),
        "exponentials less the largest possible": (
            "log_p = logits - logits.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)",
            "e = (logits - 1 / tau).exp().masked_fill(itself, 0)\n"
            "    log_p = (e / e.sum(1, keepdim=True)).masked_fill(itself, 1).log()",
        ),
        "exponentials less one maximum": (
            "log_p = logits - logits.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)",
            "e = (logits - logits.max()).exp().masked_fill(itself, 0)\n"
            "    log_p = (e / e.sum(1, keepdim=True)).masked_fill(itself, 1).log()",
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
        "every k from scratch": (
            "    return int((before + after).argmin())",
            "    return min(range(len(right) + 1), key=lambda k: int((~right[:k]).sum() + right[k:].sum()))",
        ),
    },
    "pim-loss": {
        "entropies the wrong way round": ("lam * conditional - marginal", "lam * marginal - conditional"),
        "plus the marginal": ("lam * conditional - marginal", "lam * conditional + marginal"),
        "no weight": ("lam * conditional", "conditional"),
        "the marginal of unlabelled rows alone": ("p.mean(0)", "p[free].mean(0)"),
        "the conditional entropy of all rows": ("p[free]", "p"),
        "mean of entropies for the entropy of the mean": (
            "torch.special.entr(p.mean(0)).sum()",
            "torch.special.entr(p).sum(1).mean()",
        ),
        "mean over classes": ("entr(p[free]).sum(1).mean()", "entr(p[free]).mean()"),
        "no cross entropy": (" + F.cross_entropy(logits[~free], known[~free])", ""),
        "cross entropy of probabilities": ("F.cross_entropy(logits[~free]", "F.cross_entropy(p[~free]"),
        "sum of the cross entropy": ("known[~free])", "known[~free], reduction='sum')"),
        "softmax over rows": ("softmax(1)", "softmax(0)"),
    },
    "discovery-accuracy": {
        "each cluster its largest class": (
            "pairs = dict(zip(*linear_sum_assignment(counts.numpy(), maximize=True)))",
            "pairs = dict(enumerate(counts.argmax(1).tolist()))",
        ),
        "the worst matching": (", maximize=True", ""),
        "new for old": ("y < old", "y <= old"),
        "old and new change places": (
            "float(right[y < old].mean()), float(right[y >= old].mean())",
            "float(right[y >= old].mean()), float(right[y < old].mean())",
        ),
        "shares of all rows": ("float(right[y < old].mean())", "float((right * (y < old)).mean())"),
        "names as they are": (
            "pairs = dict(zip(*linear_sum_assignment(counts.numpy(), maximize=True)))",
            "pairs = {c: c for c in range(99)}",
        ),
        "transposed": ("counts.numpy()", "counts.T.numpy()"),
    },
    "bound-update": {
        "neighbours push away": ("lam * (w @ s) - a", "-lam * (w @ s) - a"),
        "costs attract": ("(w @ s) - a", "(w @ s) + a"),
        "no weight": ("lam * (w @ s)", "(w @ s)"),
        "over the queries": ("softmax(1)", "softmax(0)"),
        "the weight on everything": ("(lam * (w @ s) - a)", "(lam * (w @ s - a))"),
        "affinities the other way round": ("w @ s", "w.T @ s"),
        "exponentials that overflow": (
            "return (lam * (w @ s) - a).softmax(1)",
            "e = (lam * (w @ s) - a).exp()\n    return e / e.sum(1, keepdim=True)",
        ),
    },
    "unem-layer": {
        "the distance not squared": (".square().sum(2)", ".square().sum(2).sqrt()"),
        "no half": ("-0.5 * distance", "-distance"),
        "no shares": ("gamma * (pi.log() + 1)", "0 * gamma * (pi.log() + 1)"),
        "shares without the logarithm": ("pi.log() + 1", "pi + 1"),
        "times the temperature": (") / temperature)", ") * temperature)"),
        "the temperature on the distance alone": (
            "((-0.5 * distance + gamma * (pi.log() + 1)) / temperature)",
            "(-0.5 * distance / temperature + gamma * (pi.log() + 1))",
        ),
        "the old shares": ("return u, u.mean(0)", "return u, pi"),
        "over the queries": ("softmax(1)", "softmax(0)"),
    },
    "clam-step": {
        "no half": ("-beta / 2 * distance", "-beta * distance"),
        "the nearest pushes away": ("-beta / 2 * distance", "beta / 2 * distance"),
        "distance, not squared": (".square().sum(2)", ".norm(dim=2)"),
        "softmax over the states": ("torch.softmax(-beta / 2 * distance, 1)", "torch.softmax(-beta / 2 * distance, 0)"),
        "visible ones move too": ("rate * pull * mask", "rate * pull"),
        "visible ones move instead": ("rate * pull * mask", "rate * pull * ~mask"),
        "the whole way": ("rate * pull * mask", "pull * mask"),
        "exponentials that underflow": (
            "torch.softmax(-beta / 2 * distance, 1)",
            "(lambda e: e / e.sum(1, keepdim=True))(torch.exp(-beta / 2 * distance))",
        ),
        "no pull back": ("share @ prototypes - v", "share @ prototypes"),
    },
    "multicut-value": {
        "joined pairs": (
            "(f.sum(0).square().sum() - sums.square().sum()) / 2", "(sums.square().sum() - f.square().sum()) / 2"
        ),
        "every pair twice": ("float(products - alpha * pairs)", "float(2 * (products - alpha * pairs))"),
        "the offset attracts": ("products - alpha * pairs", "products + alpha * pairs"),
        "no offset": ("products - alpha * pairs", "products"),
        "all pairs pay the offset": ("(len(f) ** 2 - count.square().sum()) / 2", "len(f) * (len(f) - 1) / 2"),
        "clusters, not rows": ("(len(f) ** 2 - count.square().sum()) / 2", "len(count) * (len(count) - 1) / 2"),
        "means for sums": ("member.T @ f, member.sum(0)", "(member / member.sum(0).clamp(min=1)).T @ f, member.sum(0)"),
    },
    "rate-reduction": {
        "no half": ("torch.logdet(eye + d / (n * eps2) * z.T @ z) / 2", "torch.logdet(eye + d / (n * eps2) * z.T @ z)"),
        "groups weigh alike": ("(w / n * parts)", "(parts / len(w))"),
        "the sign turned": ("return whole - ", "return -whole + "),
        "the number of samples for the group's weight": ("(w[:, None, None] * eps2)", "(n * eps2)"),
        "no dimension in the scale": ("d / (n * eps2)", "1 / (n * eps2)"),
        "hard groups": ("w = p.sum(0)", "p = (p == p.amax(1, keepdim=True)).to(z.dtype)\n    w = p.sum(0) + 1e-9"),
        "no gradient": ("n, d = z.shape", "z = z.detach()\n    n, d = z.shape"),
    },
    "ista": {
        "no threshold": (" - s * lam", ""),
        "threshold without the step": ("- s * lam", "- lam"),
        "the dictionary the other way round": ("z @ d.T", "z @ d"),
        "its transpose in the step": ("left @ d)", "left @ d.T)"),
        "negative tokens stay": ("return torch.relu(", "return ("),
        "the gradient upwards": ("z + s * (left", "z - s * (left"),
    },
    "dec-targets": {
        "distance not squared": ("(z[:, None] - centres).square().sum(2)", "(z[:, None] - centres).norm(dim=2)"),
        "a Gaussian for Student's t": ("1 / (1 + distance)", "torch.exp(-distance)"),
        "no one in the kernel": ("1 / (1 + distance)", "1 / (1e-6 + distance)"),
        "q not shared out": ("q = q / q.sum(1, keepdim=True)", "q = q"),
        "q shared out over the samples": ("q / q.sum(1, keepdim=True)", "q / q.sum(0)"),
        "no frequency": (" / q.detach().sum(0)", ""),
        "not sharper": ("q.detach().square()", "q.detach()"),
        "frequency of the sample": ("q.detach().sum(0)", "q.detach().sum(1, keepdim=True)"),
        "p not shared out": ("p / p.sum(1, keepdim=True)", "p"),
        "gradient through the targets": ("q.detach().square() / q.detach().sum(0)", "q.square() / q.sum(0)"),
        "no gradient at all": ("(z[:, None] - centres)", "(z.detach()[:, None] - centres)"),
        "p for q": ("return q, p / p.sum(1, keepdim=True)", "return p / p.sum(1, keepdim=True), q"),
    },
    "scaling-step": {
        "the virtual cluster is relaxed too": ("power[:-1] =", "power[:] ="),
        "no relaxation": ("lam / (lam + eps)", "1.0"),
        "relaxed the wrong way": ("lam / (lam + eps)", "eps / (lam + eps)"),
        "mass and rest swapped": ("[rho / k] * k + [1 - rho]", "[(1 - rho) / k] * k + [rho]"),
        "mass for each cluster": ("[rho / k] * k", "[rho] * k"),
        "rows not scaled": ("-math.log(n) - (x + log_v).logsumexp(1)", "-(x + log_v).logsumexp(1)"),
        "not in the logarithm": ("(x + log_u[:, None]).logsumexp(0)", "(x + log_u[:, None]).exp().sum(0).log()"),
        "times epsilon": ("/ -eps", "* -eps"),
        "virtual cluster first": ("[cost, torch.zeros_like(cost[:, :1])]", "[torch.zeros_like(cost[:, :1]), cost]"),
        "one round": ("range(rounds)", "range(1)"),
    },
    "diversity-loss": {
        "the prior taken off": ("z + prior", "z - prior"),
        "no prior": ("z + prior", "z"),
        "counts instead of their logarithm": ("n.log()", "n"),
        "one exponent for all": ("lam[:, None, None]", "lam.mean()"),
        "a mean over experts": (".mean(1).sum()", ".mean(1).mean()"),
        "a sum over the batch": (".mean(1).sum()", ".sum(1).sum()"),
        "softmax over the batch": ("log_softmax(2)", "log_softmax(1)"),
        "the other sign": ("-picked.mean(1)", "picked.mean(1)"),
        "the prior after the softmax": (
            "log_p = (z + prior).log_softmax(2)", "log_p = z.log_softmax(2) + prior"
        ),
        "no gradient": ("(z + prior)", "(z.detach() + prior)"),
    },
    "nmf-update": {
        "h from the old w": (
            "w = w * (v @ h.T) / (w @ (h @ h.T)).clamp_min(1e-12)\n"
            "    h = h * (w.T @ v) / (w.T @ w @ h).clamp_min(1e-12)\n    return w, h",
            "new = w * (v @ h.T) / (w @ (h @ h.T)).clamp_min(1e-12)\n"
            "    h = h * (w.T @ v) / (w.T @ w @ h).clamp_min(1e-12)\n    return new, h",
        ),
        "fractions upside down": (
            "w * (v @ h.T) / (w @ (h @ h.T)).clamp_min(1e-12)", "w * (w @ (h @ h.T)) / (v @ h.T).clamp_min(1e-12)"
        ),
        "nothing guards the denominator": ("(w.T @ w @ h).clamp_min(1e-12)", "(w.T @ w @ h)"),
        "h is not updated": ("h = h * (w.T @ v) / (w.T @ w @ h).clamp_min(1e-12)", "h = 1 * h"),
        "w is not updated": ("w = w * (v @ h.T) / (w @ (h @ h.T)).clamp_min(1e-12)", "w = 1 * w"),
        "without the old value": ("w * (v @ h.T)", "(v @ h.T)"),
        "columns of sum one": ("return w, h", "return w / w.sum(0), h"),
    },
    "frechet-mean": {
        "distances not squared": ("(d**2).T", "d.T"),
        "argmax of the cost": ("cost.argmin(1)", "cost.argmax(1)"),
        "argmax of the probabilities": ("cost.argmin(1)", "p.argmax(1)"),
        "squared probabilities": ("p @ (d**2).T", "p**2 @ (d**2).T"),
        "along the rows": ("cost.argmin(1)", "cost.argmin(0)"),
        "the sum squared": ("p @ (d**2).T", "(p @ d.T) ** 2"),
    },
    "typicality": {
        "the row itself counts": ("    distance.fill_diagonal_(torch.inf)\n", ""),
        "the farthest rows": ("distance.topk(k, dim=1, largest=False)", "distance.fill_diagonal_(0).topk(k, dim=1)"),
        "squared distances": ("near.mean(1)", "near.square().mean(1)"),
        "the sum for the mean": ("near.mean(1)", "near.sum(1)"),
        "the k-th distance alone": ("near.mean(1)", "near[:, -1]"),
        "not inverted": ("1 / (near.mean(1) + 1e-5)", "-(near.mean(1) + 1e-5)"),
        "no small constant": ("near.mean(1) + 1e-5", "near.mean(1)"),
    },
    "aum": {
        "the given class among the others": (
            "logits.scatter(2, place, -torch.inf).max(2).values", "logits.max(2).values"
        ),
        "the given class at zero": ("logits.scatter(2, place, -torch.inf)", "logits.scatter(2, place, 0.0)"),
        "the mean of the others": (
            "logits.scatter(2, place, -torch.inf).max(2).values",
            "(logits.sum(2) - given) / (logits.shape[2] - 1)",
        ),
        "the sum over the epochs": ("(given - other).mean(0)", "(given - other).sum(0)"),
        "the last epoch": ("(given - other).mean(0)", "(given - other)[-1]"),
        "the other way round": ("(given - other)", "(other - given)"),
        "of probabilities": ("given = logits", "logits = logits.softmax(2)\n    given = logits"),
        "margin of the mean logits": (
            "place = labels[None, :, None].expand(len(logits), -1, 1)",
            "logits = logits.mean(0, keepdim=True)\n    place = labels[None, :, None].expand(len(logits), -1, 1)",
        ),
    },
    "gce": {
        "no division by q": ("(-torch.expm1(q * log_p) / q).mean()", "(-torch.expm1(q * log_p)).mean()"),
        "the sum": (".mean()", ".sum()"),
        "cross-entropy": ("(-torch.expm1(q * log_p) / q).mean()", "-log_p.mean()"),
        "the power of the wrong sign": ("q * log_p", "-q * log_p"),
        "softmax over the batch": ("log_softmax(1)", "log_softmax(0)"),
        "no power": ("(-torch.expm1(q * log_p) / q)", "((1 - log_p.exp()) / q)"),
        "probabilities that vanish": (
            "logits.log_softmax(1).gather(1, labels[:, None])[:, 0]",
            "(logits.softmax(1).gather(1, labels[:, None])[:, 0] + 1e-12).log()",
        ),
        "no gradient": ("logits.log_softmax(1)", "logits.detach().log_softmax(1)"),
    },
    "uda-loss": {
        "nothing sharpened": ("(clean / temperature).log_softmax(1)", "clean.log_softmax(1)"),
        "times the temperature": ("(clean / temperature)", "(clean * temperature)"),
        "confidence of the sharpened prediction": ("clean.softmax(1).amax(1) > beta", "target.exp().amax(1) > beta"),
        "mask the other way": ("amax(1) > beta", "amax(1) < beta"),
        "mean over the kept only": ("(kl * kept).sum() / len(clean)", "(kl * kept).sum() / kept.sum().clamp_min(1)"),
        "sum for mean": ("(kl * kept).sum() / len(clean)", "(kl * kept).sum()"),
        "the divergence the other way": (
            "(target.exp() * (target - changed.log_softmax(1))).sum(1)",
            "(changed.softmax(1) * (changed.log_softmax(1) - target)).sum(1)",
        ),
        "gradient into the target": ("clean = clean.detach()", "clean = 1 * clean"),
        "cross-entropy in its place": ("(target - changed.log_softmax(1))", "(-changed.log_softmax(1))"),
        "the copy sharpened too": ("changed.log_softmax(1)", "(changed / temperature).log_softmax(1)"),
    },
    "daso-blend": {
        "the class of the semantic label": ("p.argmax(1)", "q.argmax(1)"),
        "the blend the other way": ("(1 - v) * p + v * q", "v * p + (1 - v) * q"),
        "power T for 1/T": ("m ** (1 / temperature)", "m**temperature"),
        "share of all for share of the largest": ("power / power.max()", "power / power.sum()"),
        "no power": ("m ** (1 / temperature)", "m / 1"),
        "the same blend for all": ("[p.argmax(1)][:, None]", ".mean()"),
    },
}


VARIANTS = {
    "nt-xent": {
        "in float64": ("F.normalize(z, dim=1)", "F.normalize(z.double(), dim=1)"),
        "row by row": (
            "return F.cross_entropy(logits.masked_fill(itself, -torch.inf), other)",
            "rows = [logits[i, other[i]] - logits[i][~itself[i]].logsumexp(0) for i in range(len(z))]\n"
            "    return -torch.stack(rows).mean()",
        ),
        "logarithms before the ratio": (
            "return F.cross_entropy(logits.masked_fill(itself, -torch.inf), other)",
            "top = logits.masked_fill(itself, -torch.inf).amax(1, keepdim=True).detach()\n"
            "    e = (logits - top).exp().masked_fill(itself, 0)\n"
            "    return (e.sum(1).log() - (logits - top)[torch.arange(len(z)), other]).mean()",
        ),
    },
    "moco-update": {
        "keys in float64": ("normalize(k.detach(), dim=1)", "normalize(k.detach().double(), dim=1)"),
        "lerp_": ("slow.copy_(m * slow + (1 - m) * fast)", "slow.lerp_(fast, 1 - m)"),
        "keys divided by their norm": (
            "torch.nn.functional.normalize(k.detach(), dim=1)", "k.detach() / (k.detach().norm(dim=1)[:, None] + 1e-8)"
        ),
    },
    "infonce-bound": {
        "in float64": ("right = scores", "scores = scores.double()\n    right = scores"),
        "cross entropy": (
            "right = scores.diagonal() - scores.logsumexp(1)",
            "right = -torch.nn.functional.cross_entropy(scores, torch.arange(len(scores)))",
        ),
    },
    "uniformity": {
        "in float64": ("torch.pdist(F.normalize(z, dim=1))", "torch.pdist(F.normalize(z.double(), dim=1))"),
        "from cosines": (
            "apart = torch.pdist(F.normalize(z, dim=1)).square()",
            "z = F.normalize(z, dim=1)\n"
            "    apart = (2 - 2 * z @ z.T)[~torch.eye(len(z), dtype=torch.bool)]",
        ),
        "einsum": (
            "(F.normalize(z1, dim=1) - F.normalize(z2, dim=1)).square().sum(1).mean()",
            "(2 - 2 * torch.einsum('nd,nd->n', F.normalize(z1, dim=1), F.normalize(z2, dim=1))).mean()",
        ),
    },
    "barlow-twins": {
        "batch normalisation": (
            "z1, z2 = (F.normalize(z - z.mean(0), dim=0) for z in (z1, z2))\n    c = z1.T @ z2",
            "norm = torch.nn.BatchNorm1d(z1.shape[1], affine=False)\n    c = norm(z1).T @ norm(z2) / len(z1)",
        ),
        "in float64": ("F.normalize(z - z.mean(0), dim=0)", "F.normalize(z.double() - z.double().mean(0), dim=0)"),
        "einsum": ("z1.T @ z2", "torch.einsum('bi,bj->ij', z1, z2)"),
        "mean without gradient": ("z - z.mean(0), dim=0", "z - z.mean(0).detach(), dim=0"),  # it sums to 0
    },
    "rankme": {
        "in float64": ("svdvals(z)", "svdvals(z.double())"),
        "eigenvalues of the Gram matrix": (
            "torch.linalg.svdvals(z)", "torch.linalg.eigvalsh(z.double().T @ z.double()).clamp(min=0).sqrt()"
        ),
    },
    "cluster-loss": {
        "in float64": ("F.normalize(z, dim=1)", "F.normalize(z.double(), dim=1)"),
        "pair by pair": (
            "each = -(log_p * partner).sum(1)[paired] / partner.sum(1)[paired]",
            "each = torch.stack([-log_p[i][partner[i]].mean() for i in range(len(z)) if paired[i]])",
        ),
    },
    "aggregate": {
        "in float64": ("scores.view", "scores.double().view"),
        "einsum": (
            "torch.stack([table[v, :, :, v] for v in range(copies)]).mean(0)",
            "torch.einsum('vncv->nc', table) / copies",
        ),
    },
    "next-patch": {
        "image by image": (
            "return error[counts].mean()",
            "return torch.cat([e[s - 1 :] for e, s in zip(error, prefix.tolist())]).mean()",
        ),
    },
    "prefix-mask": {
        "token by token": (
            "return causal | (place < prefix[:, None, None])",
            "return torch.tensor([[[j <= i or j < s for j in range(k)] for i in range(k)] for s in prefix.tolist()])",
        ),
    },
    "knn-kl": {
        "in float64": (
            "n, d = target.shape", "target, chosen = target.double(), chosen.double()\n    n, d = target.shape"
        ),
        "row by row": (
            "torch.cdist(target, chosen).amin(1)", "torch.stack([(chosen - x).norm(dim=1).min() for x in target])"
        ),
    },
    "graph-cut": {
        "in float64": ("gain = similarity.sum(0)", "similarity = similarity.double()\n    gain = similarity.sum(0)"),
        "a list": ("return torch.tensor(chosen)", "return chosen"),
    },
    "half-splits": {
        "in float32": ("correct.double()", "correct.float()"),
        "covariances of pairs": (
            "return n / (n - 1) * (y.mean(1).var() - coins)",
            "c = torch.cov(y.T)\n    return (c.sum() - c.trace()) / (n * (n - 1))",
        ),
    },
    "threshold": {
        "a loop": (
            "return int((before + after).argmin())",
            "now = best = k = 0\n"
            "    for j, good in enumerate(right.tolist(), 1):\n"
            "        now += -1 if good else 1\n"
            "        if now < best:\n"
            "            best, k = now, j\n"
            "    return k",
        ),
        "a loop over the tensor": (
            "return int((before + after).argmin())",
            "now = best = k = 0\n"
            "    for j in range(len(right)):\n"
            "        now += -1 if right[j] else 1\n"
            "        if now < best:\n"
            "            best, k = now, j + 1\n"
            "    return k",
        ),
    },
    "pim-loss": {
        "in float64": ("logits.softmax(1)", "logits.double().softmax(1)"),
        "log-probabilities": (
            "torch.special.entr(p[free]).sum(1).mean()",
            "-(p * logits.log_softmax(1)).sum(1)[free].mean()",
        ),
        "cross entropy by hand": (
            "F.cross_entropy(logits[~free], known[~free])",
            "-(logits.log_softmax(1)[~free].gather(1, known[~free][:, None])).mean()",
        ),
    },
    "discovery-accuracy": {
        "minus the counts": ("counts.numpy(), maximize=True", "-counts.numpy()"),
        "counts by index": (
            "for c, t in zip(clusters.tolist(), y.tolist()):\n        counts[c, t] += 1",
            "counts.index_put_((clusters, y), torch.ones(len(y)), accumulate=True)",
        ),
    },
    "bound-update": {
        "in float64": ("return (lam", "a, w, s = a.double(), w.double(), s.double()\n    return (lam"),
        "query by query": (
            "return (lam * (w @ s) - a).softmax(1)",
            "return torch.stack([torch.softmax(lam * (w[i] @ s) - a[i], 0) for i in range(len(a))])",
        ),
        "by logsumexp": (
            "return (lam * (w @ s) - a).softmax(1)",
            "x = lam * torch.einsum('ij,jk->ik', w, s) - a\n    return (x - x.logsumexp(1, keepdim=True)).exp()",
        ),
    },
    "unem-layer": {
        "by products": (
            "(z[:, None] - w).square().sum(2)",
            "z.square().sum(1, keepdim=True) - 2 * z @ w.T + w.square().sum(1)",
        ),
        "the constant left out": ("(pi.log() + 1)", "pi.log()"),  # the same for all classes
        "in float64": ("distance = (z", "z, w, pi = z.double(), w.double(), pi.double()\n    distance = (z"),
    },
    "clam-step": {
        "in float64": ("share @ prototypes - v", "share.double() @ prototypes.double() - v.double()"),
        "cdist": ("(v[:, None] - prototypes).square().sum(2)", "torch.cdist(v, prototypes).square()"),
        "where": ("v + rate * pull * mask", "torch.where(mask, v + rate * pull, v)"),
    },
    "multicut-value": {
        "in float64": (
            "member = torch.nn.functional.one_hot(labels).to(f.dtype)",
            "f = f.double()\n    member = torch.nn.functional.one_hot(labels).to(f.dtype)",
        ),
        "all pairs less the joined ones": (
            "(f.sum(0).square().sum() - sums.square().sum()) / 2",
            "(f.sum(0).square().sum() - f.square().sum()) / 2 - (sums.square().sum() - f.square().sum()) / 2",
        ),
    },
    "rate-reduction": {
        "in float64": ("n, d = z.shape", "z, p = z.double(), p.double()\n    n, d = z.shape"),
        "group by group": (
            "return whole - (w / n * parts).sum()",
            "for j in range(p.shape[1]):\n"
            "        gram = (p[:, j, None] * z).T @ z\n"
            "        whole = whole - w[j] / (2 * n) * torch.logdet(eye + d / (w[j] * eps2) * gram)\n"
            "    return whole",
        ),
        "slogdet": (
            "torch.logdet(eye + d / (n * eps2) * z.T @ z)", "torch.linalg.slogdet(eye + d / (n * eps2) * z.T @ z)[1]"
        ),
    },
    "ista": {
        "token by token": (
            "return torch.relu(z + s * (left @ d) - s * lam)",
            "return torch.stack([torch.relu(row + s * (d.T @ (row - d @ row)) - s * lam) for row in z])",
        ),
        "clamp": ("torch.relu(z + s * (left @ d) - s * lam)", "(z + s * (left @ d) - s * lam).clamp(min=0)"),
    },
    "dec-targets": {
        "in float64": ("(z[:, None] - centres)", "(z[:, None].double() - centres.double())"),
        "expanded squares": (
            "(z[:, None] - centres).square().sum(2)",
            "z.square().sum(1, keepdim=True) + centres.square().sum(1) - 2 * z @ centres.T",
        ),
        "without grad": (
            "p = q.detach().square() / q.detach().sum(0)",
            "with torch.no_grad():\n        p = q * q / q.sum(0)",
        ),
    },
    "scaling-step": {
        "a loop over columns": (
            "log_v = power * (c - (x + log_u[:, None]).logsumexp(0))",
            "log_v = torch.stack([power[j] * (c[j] - (x[:, j] + log_u).logsumexp(0)) for j in range(k + 1)])",
        ),
        "a very large number for infinity": (
            "1.0 if math.isinf(lam) else lam / (lam + eps)", "min(lam, 1e12) / (min(lam, 1e12) + eps)"
        ),
    },
    "diversity-loss": {
        "cross entropy in a loop": (
            "log_p = (z + prior).log_softmax(2)\n    picked = log_p[:, torch.arange(len(y)), y]\n"
            "    return -picked.mean(1).sum()",
            "return sum(torch.nn.functional.cross_entropy(one, y) for one in z + prior)",
        ),
    },
    "nmf-update": {
        "the other order of products": ("(w @ (h @ h.T))", "((w @ h) @ h.T)"),
    },
    "frechet-mean": {
        "a broadcast in place of the product": ("p @ (d**2).T", "(p[:, None, :] * d.square()).sum(2)"),
        "the largest of the negative": ("cost.argmin(1)", "(-cost).max(1).indices"),
    },
    "typicality": {
        "sorted": ("distance.topk(k, dim=1, largest=False).values", "distance.sort(dim=1).values[:, :k]"),
        "one neighbour more, the first dropped": (
            "    distance.fill_diagonal_(torch.inf)\n    near = distance.topk(k, dim=1, largest=False).values",
            "    distance.fill_diagonal_(-1)\n"
            "    near = distance.topk(k + 1, dim=1, largest=False).values.sort(dim=1).values[:, 1:]",
        ),
    },
    "aum": {
        "by a mask": (
            "other = logits.scatter(2, place, -torch.inf).max(2).values",
            "mask = torch.nn.functional.one_hot(labels, logits.shape[2]).bool()\n"
            "    other = logits.masked_fill(mask[None], -torch.inf).amax(2)",
        ),
    },
    "gce": {
        "one less the power": ("(-torch.expm1(q * log_p) / q).mean()", "((1 - (q * log_p).exp()) / q).mean()"),
    },
    "uda-loss": {
        "in float64": ("clean = clean.detach()", "clean, changed = clean.detach().double(), changed.double()"),
        "by F.kl_div": (
            "kl = (target.exp() * (target - changed.log_softmax(1))).sum(1)",
            'kl = torch.nn.functional.kl_div(changed.log_softmax(1), target, log_target=True, reduction="none").sum(1)',
        ),
        "where": ("(kl * kept).sum() / len(clean)", "torch.where(kept, kl, torch.zeros_like(kl)).mean()"),
    },
    "daso-blend": {
        "lerp": ("return (1 - v) * p + v * q", "return torch.lerp(p, q, v.to(p.dtype))"),
        "power of the ratio": (
            "power = m ** (1 / temperature)\n    v = (power / power.max())[p.argmax(1)][:, None]",
            "v = ((m / m.max()) ** (1 / temperature))[p.argmax(1)][:, None]",
        ),
        "in float64": ("power = m ** (1 / temperature)", "m = m.double()\n    power = m ** (1 / temperature)"),
    },
}
