// The best template and the best of another person: a rule that does not depend on the order of comparing.
#pragma once

#include "portable.cuh"

#define NOBODY (-1)

struct Candidate {
    float similarity;
    int index, person;
};

struct BestTwo {
    Candidate best, other;  // other is of another person than best
};

FUNCTION Candidate no_candidate() { return Candidate{-2.0f, NOBODY, NOBODY}; }

// The higher cosine, of equals the lower index. NaN is never better, so a broken embedding finds nobody.
FUNCTION bool better(Candidate a, Candidate b) {
    if (a.index == NOBODY || !(a.similarity == a.similarity)) return false;
    if (b.index == NOBODY) return true;
    return a.similarity > b.similarity || (a.similarity == b.similarity && a.index < b.index);
}

FUNCTION void consider(BestTwo *two, Candidate found) {
    if (better(found, two->best)) {
        if (two->best.person != found.person) two->other = two->best;
        two->best = found;
    } else if (found.person != two->best.person && better(found, two->other)) {
        two->other = found;
    }
}

FUNCTION void merge(BestTwo *two, BestTwo found) {
    consider(two, found.best);
    consider(two, found.other);
}
