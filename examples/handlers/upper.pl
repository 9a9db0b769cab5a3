#!/usr/bin/env perl
# Answers in capitals: `upper:hello` is answered HELLO. Kept running (worker): a line in, a line out, one after the other.
use strict;
use warnings;

$| = 1;    # an answer that stays in a buffer is none
while (my $line = <STDIN>) {    # ends when lond closes it
    chomp $line;
    $line =~ s/^upper://;
    print uc($line), "\n";
}
