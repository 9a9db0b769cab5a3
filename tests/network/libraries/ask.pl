# Asks with Lonnet.pm what its standard input says, a line each, and prints what came of it.
use strict;
use warnings;
use Lonnet;

$| = 1;
my $peer = Lonnet->new(run_dir => $ARGV[0], peer => $ARGV[1]);
while (defined(my $line = <STDIN>)) {
    chomp $line;
    my ($timeout, $key, @requests) = split /\t/, $line, -1;
    my @outcomes = eval {
          $key eq 'plain' ? $peer->reply($requests[0], timeout => $timeout)
        : $key eq 'many'  ? $peer->map(\@requests, undef, timeout => $timeout)
        : $peer->critical($requests[0], timeout => $timeout, $key eq q{} ? () : (key => $key));
    };
    my $kind = ref $@;
    $kind =~ s/\ALonnet:://;
    die $@ if $@ && !$kind;
    print join("\t", $kind ? $kind : map { $_->kind . q{ } . $_->text } @outcomes), "\n";
}
