"""Snippets of the written file: combination rules, calibrations and uncertainty. Names refer to other snippets."""

RULES: dict[str, str] = {
    "weighted_mean": '''
def weighted_mean(maps: list[Tensor]) -> Tensor:
    """Weighted mean of the members' maps (B, K, h, w)."""
    weights = list(WEIGHTS.values())
    total = maps[0] * weights[0]
    for part, weight in zip(maps[1:], weights[1:], strict=True):
        total = torch.add(total, part, alpha=weight)
    return total
''',
    "precision_mean": '''
def precision_mean(maps: list[Tensor]) -> Tensor:
    """Mean of the members' maps (B, K, h, w), weighted by 1 / squared error on held-out images."""
    precisions = list(PRECISIONS.values())
    total = maps[0] * precisions[0]
    for part, precision in zip(maps[1:], precisions[1:], strict=True):
        total = torch.add(total, part, alpha=precision)
    return total / sum(precisions)
''',
    "class_weighted_mean": '''
def class_weighted_mean(maps: list[Tensor], class_weights: Tensor) -> Tensor:
    """Mean of the members' maps (B, K, h, w) with a weight per member and class, (M, K)."""
    weights = class_weights[..., None, None]
    total, share = maps[0] * weights[0], weights[0]
    for part, weight in zip(maps[1:], weights[1:], strict=True):
        total, share = total + part * weight, share + weight
    mean = total / share
    return mean
''',
    "extreme": '''
def extreme(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], beyond: Tensor) -> tuple[Tensor, Tensor]:
    """Value and weight of the more extreme of two members: b where it is beyond a; of equal ones the smaller weight."""
    lighter = torch.where(b[0] == a[0], torch.minimum(b[1], a[1]), a[1])
    return torch.where(beyond, b[0], a[0]), torch.where(beyond, b[1], lighter)
''',
    "trimmed_mean": '''
def trimmed_mean(maps: list[Tensor]) -> Tensor:
    """Weighted mean without the lowest and the highest member at each value."""
    weighted = [(part, torch.full_like(part, weight)) for part, weight in zip(maps, WEIGHTS.values(), strict=True)]
    low = high = weighted[0]
    for member in weighted[1:]:
        low = extreme(low, member, member[0] < low[0])
        high = extreme(high, member, member[0] > high[0])
    mean = weighted_mean(maps)
    remaining = mean - low[0] * low[1] - high[0] * high[1]
    trimmed = (remaining / (1 - low[1] - high[1]).clamp(min=1e-6)).clamp(low[0], high[0])
    return trimmed
''',
    "weighted_median": '''
def weighted_median(maps: list[Tensor]) -> Tensor:
    """Value with half of the weight on either side; the middle of two such values."""
    values, order = torch.stack(maps).sort(0)
    reached = values.new_tensor(list(WEIGHTS.values()))[order].cumsum(0)
    lower, upper = (
        values.gather(0, (reached < half).sum(0, keepdim=True).clamp(max=len(maps) - 1))[0]
        for half in (0.5 - 1e-5, 0.5 + 1e-5)  # shares that differ from one half by less are one half, up to rounding
    )
    return (lower + upper) / 2
''',
    "pixel_ranks": '''
def pixel_ranks(maps: Tensor) -> Tensor:
    """Rank of each pixel in its channel (B, K, h, w), from 0 to 1; equal pixels get the mean of their ranks."""
    flat = maps.flatten(2).flatten(0, 1).contiguous()
    ordered = flat.sort(-1).values
    first, end = torch.searchsorted(ordered, flat), torch.searchsorted(ordered, flat, right=True)
    return ((first + end - 1).to(maps.dtype) / 2 / max(flat.shape[-1] - 1, 1)).view_as(maps)
''',
    "matched_mean": '''
def matched_mean(maps: list[Tensor]) -> Tensor:
    """Weighted mean of the members' maps (B, K, h, w), matched to their mean histogram (quantile averaging)."""
    flat = [part.flatten(2).flatten(0, 1).contiguous() for part in maps]
    ordered = [part.sort(-1).values for part in flat]
    common = weighted_mean(ordered)
    matched = []
    for part, own in zip(flat, ordered, strict=True):
        first, end = torch.searchsorted(own, part), torch.searchsorted(own, part, right=True)
        below, above = common.gather(-1, (first + end - 1) // 2), common.gather(-1, (first + end) // 2)
        matched.append(((below + above) / 2).view_as(maps[0]))
    return weighted_mean(matched)
''',
    "stacked_logits": '''
def stacked_logits(maps: list[Tensor], kernel: Tensor, bias: Tensor) -> Tensor:
    """Sum of the members' logits, each after a 1x1 convolution (M, K, K), plus a bias (K,): (B, K, h, w)."""
    parts = [torch.einsum("oi,bihw->bohw", matrix, to_logits(part)) for part, matrix in zip(maps, kernel, strict=True)]
    return sum(parts[1:], parts[0]) + bias[:, None, None]
''',
    "stacked_values": '''
def stacked_values(maps: list[Tensor], kernel: Tensor) -> Tensor:
    """Sum of the members' values (B, K, h, w), each multiplied by a number per member and channel, (M, K)."""
    parts = [part * factors[:, None, None] for part, factors in zip(maps, kernel, strict=True)]
    return sum(parts[1:], parts[0])
''',
    "vector_scaled": '''
def vector_scaled(maps: Tensor) -> Tensor:
    """Calibrate each class by a scale and a bias of its logits (Guo et al. 2017)."""
    scales, biases = (maps.new_tensor(numbers).view(-1, 1, 1) for numbers in (CLASS_SCALES, CLASS_BIASES))
    return from_logits(to_logits(maps) * scales + biases)
''',
    "included": '''
def included(mean: Tensor) -> Tensor:
    """Which classes the guaranteed set of each pixel holds, bool (B, K, h, w); the most probable one always."""
    return (mean >= SET_THRESHOLD).scatter_(1, mean.argmax(1, keepdim=True), True)
''',
}
"""Snippets for maps of any distribution."""

BERNOULLI: dict[str, str] = {
    "to_logits": '''
def to_logits(maps: Tensor) -> Tensor:
    """Log-odds of probabilities."""
    return torch.logit(maps, eps=1e-7)
''',
    "from_logits": '''
def from_logits(logits: Tensor) -> Tensor:
    """Probabilities of log-odds."""
    return torch.sigmoid(logits)
''',
    "entropy": '''
def entropy(maps: Tensor) -> Tensor:
    """Mean Bernoulli entropy of the channels in nats: (B, K, h, w) -> (B, h, w)."""
    strips = []
    for strip in in_strips(maps):
        p = strip.clamp(0, 1)
        q = 1 - p
        strips.append(-(p * p.clamp(min=1e-12).log() + q * q.clamp(min=1e-12).log()).mean(1))
    return torch.cat(strips, dim=-2)
''',
    "single_entropy": '''
def single_entropy(maps: Tensor) -> Tensor:
    """Entropy in nats of a map of probabilities: (B, 1, h, w) -> (B, h, w)."""
    p = maps.clamp(0, 1)
    q = 1 - p
    return -(p * p.clamp(min=1e-12).log() + q * q.clamp(min=1e-12).log())[:, 0]
''',
    "decisions": '''
def decisions(maps: Tensor) -> Tensor:
    """1 where a probability is at least 0.5, else 0, (B, K, h, w)."""
    return (maps >= 0.5).to(maps.dtype)
''',
}
"""Snippets for maps of independent probabilities."""

CATEGORICAL: dict[str, str] = {
    "to_logits": '''
def to_logits(maps: Tensor) -> Tensor:
    """Log-probabilities of class probabilities (B, K, h, w)."""
    return maps.clamp(min=1e-7).log()
''',
    "from_logits": '''
def from_logits(logits: Tensor) -> Tensor:
    """Class probabilities of logits (B, K, h, w)."""
    return logits.softmax(1)
''',
    "normalized": '''
def normalized(shares: Tensor, otherwise: Tensor) -> Tensor:
    """Let class probabilities (B, K, h, w) sum to 1; where all are 0, take the other map."""
    total = shares.sum(1, keepdim=True)
    return torch.where(total > 0, shares / total.clamp(min=torch.finfo(total.dtype).tiny), otherwise)
''',
    "entropy": '''
def entropy(maps: Tensor) -> Tensor:
    """Entropy of class probabilities in nats: (B, K, h, w) -> (B, h, w)."""
    strips = []
    for strip in in_strips(maps):
        p = strip.clamp(0, 1)
        strips.append(-(p * p.clamp(min=1e-12).log()).sum(1))
    return torch.cat(strips, dim=-2)
''',
    "decisions": '''
def decisions(maps: Tensor) -> Tensor:
    """1 for the most probable class of each pixel, else 0, (B, K, h, w)."""
    return torch.zeros_like(maps).scatter_(1, maps.max(1, keepdim=True).indices, 1)
''',
}
"""Snippets for maps of class probabilities."""

UNCERTAINTY: dict[str, str] = {
    "in_strips": '''
def in_strips(maps: Tensor) -> tuple[Tensor, ...]:
    """Split the rows of maps (B, K, h, w) into strips that fit the cache of a CPU."""
    return maps.split(max((1 << 18) * maps.shape[-2] // maps.numel(), 1), dim=-2)
''',
    "member_uncertainty": '''
def member_uncertainty(maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Variance, expected entropy, mutual information and disagreement of the members' maps (B, K, h, w).

    Means are moved instead of summed up, so the variance of equal members is exactly 0 (West 1979).
    """
    mean = variance = votes = torch.zeros_like(maps[0])
    expected_entropy = torch.zeros_like(maps[0][:, 0])
    total = 0.0
    for part, weight in zip(maps, WEIGHTS.values(), strict=True):
        total += weight
        share = weight / total
        expected_entropy = torch.lerp(expected_entropy, entropy(part), share)
        votes = torch.lerp(votes, decisions(part), share)
        difference = part - mean
        mean = torch.add(mean, difference, alpha=share)
        variance = torch.addcmul(variance, difference, part - mean, value=weight)
    mutual_information = (entropy(mean) - expected_entropy).clamp(min=0)
    return variance, expected_entropy, mutual_information, DISAGREEMENT
''',
    "member_variance": '''
def member_variance(maps: list[Tensor]) -> Tensor:
    """Weighted variance of the members' maps (B, K, h, w).

    Means are moved instead of summed up, so the variance of equal members is exactly 0 (West 1979).
    """
    mean = variance = torch.zeros_like(maps[0])
    total = 0.0
    for part, weight in zip(maps, WEIGHTS.values(), strict=True):
        total += weight
        difference = part - mean
        mean = torch.add(mean, difference, alpha=weight / total)
        variance = torch.addcmul(variance, difference, part - mean, value=weight)
    return variance
''',
}
"""Snippets for the uncertainty over the members."""
