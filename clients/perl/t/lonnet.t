# The client against a broker that a child process plays, and the serving side against this process.
use strict;
use warnings;
use File::Temp qw(tempdir);
use IO::Socket::UNIX;
use Lonnet;
use Test::More;

# Nothing here takes long; what hangs ends.
alarm 60;
local $SIG{PIPE} = 'IGNORE';
my $folder = tempdir(CLEANUP => 1);

# A process of its own that plays the broker of `there`: `code` gets the listening socket.
my $children = 0;
sub broker {
    my ($code) = @_;
    my $path = "$folder/there";
    unlink $path;
    my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 5) or die "listen: $!";
    return child(sub { $code->($listener) });
}

sub child {
    my ($code) = @_;
    my $pid = fork;
    die "fork: $!" if !defined $pid;
    return $pid if $pid;
    $SIG{TERM} = 'DEFAULT';
    alarm 60;
    eval { $code->(); 1 } or warn $@;
    require POSIX;
    POSIX::_exit(0);
}

sub ended { my ($pid) = @_; waitpid $pid, 0; return $? }

sub client { return Lonnet->new(run_dir => $folder, peer => 'there', timeout => 30, @_) }

sub failing { my ($code) = @_; return eval { $code->(); 1 } ? undef : $@ }

# Answers with what `answer` makes of each line.
sub serve {
    my ($stream, $answer) = @_;
    while (defined(my $line = <$stream>)) {
        chomp $line;
        $stream->print($answer->($line), "\n");
        $stream->flush;
    }
}

for (
    ['con_lost', 'Lost'], ['con_delayed', 'Delayed'], ['con_failed', 'Failed'], ['refused', 'Refused'],
    ['unknown_cmd', 'Refused'], ['error:no', 'Error', 'no'], ['error', 'Answer'], [q{}, 'Answer'],
    ["\xff\r", 'Answer'],
) {
    my ($raw, $kind, $text) = @$_;
    my $outcome = Lonnet::Outcome->of($raw);
    is_deeply([$outcome->kind, $outcome->text, $outcome->raw], [$kind, defined $text ? $text : $raw, $raw]);
    isa_ok($outcome, "Lonnet::$kind");
    isa_ok($outcome, 'Lonnet::Outcome');
}

{
    my $pid = broker(sub { serve(scalar $_[0]->accept, sub { $_[0] }) });
    my $client = client();
    is($client->reply("a \xff\r")->raw, "a \xff\r", 'bytes pass unchanged');
    is($client->critical('x')->raw, 'critical:x');
    is($client->critical('critical:x')->raw, 'critical:x');
    is($client->critical('x', key => 'k.1-A_b')->raw, 'critical;key=k.1-A_b:x');
    is($client->critical('critical;key=a:x')->raw, 'critical;key=a:x');
    my @all = $client->map([map {"n$_"} 1 .. 20_000]);
    is_deeply([map { $_->raw } @all], [map {"n$_"} 1 .. 20_000], 'many ahead of their answers');
    my @some;
    my $error = failing(sub { $client->map(['a', "b\n", 'c'], sub { push @some, $_[0]->raw }) });
    isa_ok($error, 'Lonnet::BadRequest');
    is_deeply(\@some, ['a'], 'what was sent before is answered');
    for my $bad (
        sub { $client->reply(q{}) },     sub { $client->reply("a\nb") }, sub { $client->reply("\x{263a}") },
        sub { $client->critical(q{}) }, sub { $client->critical('critical:') },
        sub { $client->critical('x', key => 'a b') }, sub { $client->critical('x', key => q{}) },
        sub { $client->critical('critical;key=a:x', key => 'b') },
    ) {
        my $error = failing($bad);
        isa_ok($error, 'Lonnet::BadRequest');
        ok(!$error->may_have_been_taken, $error->message);
    }
    is($client->reply('still')->raw, 'still');
    $client->close;
    is(ended($pid), 0);
}

{
    my $pid = broker(sub {
        my ($listener) = @_;
        for my $answer ('first', 'second') {
            my $stream = $listener->accept;
            my $line   = <$stream>;
            $stream->print("$answer $line");
            $stream->close;
        }
    });
    my $client = client();
    is($client->reply('ping')->raw, 'first ping');
    # A request that comes between the answer and the close is another matter: it may be taken.
    select undef, undef, undef, 0.01 while $client->{connection}->is_idle;
    is($client->reply('ping')->raw, 'second ping', 'a connection that went is made anew');
    ended($pid);
    my $error = failing(sub { $client->reply('ping') });
    isa_ok($error, 'Lonnet::Away');
    ok(!$error->may_have_been_taken);
}

{
    my $pid = broker(sub {
        my ($listener) = @_;
        my @seen;
        for my $round (0 .. 3) {
            my $stream = $listener->accept;
            push @seen, scalar <$stream>;
            chomp $seen[-1];
            $stream->print(join(q{ }, @seen), "\n") if $round == 3;
            $stream->close;
        }
    });
    my $client = client();
    for my $ask (sub { $client->reply('pay:1') }, sub { $client->critical('pay:2') }) {
        my $error = failing($ask);
        isa_ok($error, 'Lonnet::Broken');
        ok($error->may_have_been_taken);
    }
    is( $client->critical('pay:3', key => 'k')->raw,
        'pay:1 critical:pay:2 critical;key=k:pay:3 critical;key=k:pay:3',
        'only what has a key is sent again' );
    ended($pid);
}

for my $ask (
    sub { $_[0]->critical('pay', key => 'k') },
    sub { $_[0]->critical('critical;key=k:pay') },
) {
    my $pid = broker(sub {
        my $stream = $_[0]->accept;
        my $line   = <$stream>;
        unlink "$folder/there";
    });
    my $error = failing(sub { $ask->(client()) });
    isa_ok($error, 'Lonnet::Broken', 'the first error, though the broker is away then');
    ok($error->may_have_been_taken);
    ended($pid);
}

{
    my $pid = broker(sub {
        my ($listener) = @_;
        my $late = $listener->accept;
        my $line = <$late>;
        my $next = $listener->accept;
        $late->print("late\n");
        serve($next, sub { $_[0] });
    });
    my $client = client();
    my $error = failing(sub { $client->reply('slow', timeout => 0.1) });
    isa_ok($error, 'Lonnet::Timeout');
    ok($error->may_have_been_taken);
    is($client->reply('ping')->raw, 'ping', 'a late answer is nobody\'s');
    $client->close;
    ended($pid);
}

# Serving. What comes is sent to the handler's socket, as lond would.
sub asked {
    my ($path, $sent, $count) = @_;
    my $stream;
    for (1 .. 3000) {
        last if $stream = IO::Socket::UNIX->new(Peer => $path);
        select undef, undef, undef, 0.01;
    }
    $stream->print($sent);
    $stream->flush;
    my @lines = map { scalar <$stream> } 1 .. $count;
    chomp @lines;
    return @lines;
}

{

    package Odd;
    use overload '""' => sub { die 'no text' }, bool => sub { 0 }, fallback => 1;
}

my $put_off;
sub handler {
    my ($request) = @_;
    my $text = $request->text;
    my @words = map { defined $_ ? $_ : 'none' } $request->sender, $request->id, $request->key;
    print "noise\n";
    if ($text eq 'wait') { $put_off = $request; return }
    $put_off->answer('waited') if $text eq 'go';
    Lonnet::later() if $text eq 'later';
    die "no\nway\n" if $text eq 'die';
    die bless {}, 'Odd' if $text eq 'odd';
    return if $text eq 'nothing';
    if ($text eq 'forget') { $put_off = $request; return }
    if ($text eq 'forgotten') { $put_off = undef; return 'ok' }
    return "a\nb" if $text eq 'lines';
    return join q{,}, @words, $text;
}

my $sent = "1 a - - wait\n2 msua1 e/7 k-1 one  two \n3 a - - later\n4 a - - die\n5 a - - lines\n6 a - - go\n"
    . "7 a - - nothing\n8 a - - forget\n9 a - - forgotten\n10 a - - odd\n";
my @expected = (
    '2 msua1,e/7,k-1,one  two ',
    '3!later',
    '4 error:no way',
    "5 error:the handler's answer has a newline in it",
    '1 waited',
    '6 a,none,none,go',
    '7 ',
    '8 error:the handler has given no answer',
    '9 ok',
    '10 error:Odd',
);

{
    my $path = "$folder/tagged";
    my $pid = child(sub {
        open STDERR, '>', '/dev/null';
        open STDOUT, '>', '/dev/null';
        Lonnet::serve_tagged($path, \&handler);
    });
    is_deeply([asked($path, $sent, 10)], \@expected, 'answers in any order');
    my $error = failing(sub { Lonnet::serve_tagged($path, sub { }) });
    like($error, qr/served already/);
    kill TERM => $pid;
    is(ended($pid), 0, 'it ends in order');
    ok(!-e $path);
}

{
    my $path = "$folder/lines";
    IO::Socket::UNIX->new(Local => $path, Listen => 1)->close;
    my $pid = child(sub {
        open STDERR, '>', '/dev/null';
        open STDOUT, '>', '/dev/null';
        Lonnet::serve_lines($path, \&handler);
    });
    select undef, undef, undef, 0.01 until IO::Socket::UNIX->new(Peer => $path);
    is_deeply(
        [asked($path, "wait\none\nlater\nnothing\ndie\ngo\nforget\nforgotten\n", 8)],
        [   'waited', 'none,none,none,one', 'error:not now', q{}, 'error:no way', 'none,none,none,go',
            'error:the handler has given no answer', 'ok',
        ],
        'answers in the order of the requests'
    );
    kill TERM => $pid;
    is(ended($pid), 0);
}

{
    pipe my $in, my $to or die;
    pipe my $from, my $out or die;
    my $pid = child(sub {
        close $to;
        open STDIN,  '<&', $in;
        open STDOUT, '>&', $out;
        open STDERR, '>',  '/dev/null';
        Lonnet::worker_tagged(\&handler);
    });
    close $_ for $in, $out;
    syswrite $to, $sent;
    close $to;
    chomp(my @lines = <$from>);
    is_deeply(\@lines, \@expected, 'a worker: what it prints does not come between');
    is(ended($pid), 0, 'it ends with its input');
}

done_testing();
